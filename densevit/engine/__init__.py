"""What mmengine's Runner lacks: each file has one reason, named at its top."""
