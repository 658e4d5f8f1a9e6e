"""What stands around a controller on a robot: recording what ran."""
