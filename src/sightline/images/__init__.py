"""From bytes to batches on the device. Nothing here knows Lightning."""
