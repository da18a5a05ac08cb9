"""Label many images with one model, once each; resumable."""
