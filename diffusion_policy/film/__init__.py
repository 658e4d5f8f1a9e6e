"""Pictures and moving pictures for people: grids of episodes, actions drawn on what the robot saw.

Runs nothing: who steps an environment hands the frames in, and this room stands below `rollout`.
"""
