"""What is kept on disk between calls: decoded images, unpacked arrays, downloads."""
