"""Other people's checkpoints become policies: LeRobot's folders, the files of Chi et al. 2023."""
