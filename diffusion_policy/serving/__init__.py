"""A policy for robots elsewhere: the server and its sessions, one a robot; and a recorder of what ran, on any robot."""
