"""Reading, augmentation and sampling of images, videos and volumes. Import from its modules."""
