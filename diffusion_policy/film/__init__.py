"""Pictures and moving pictures for people: grids of episodes, actions drawn on what the robot saw.

Steps no environment: who does hands the frames in, and this room stands below `rollout`.
"""
