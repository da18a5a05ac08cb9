"""What is wrong with labelled images: finding it, judging it, mending it."""
