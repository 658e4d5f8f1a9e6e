"""What is wrong or odd about a data set, what that does to training, and how to mend it.

One module a family of checks; each takes in one episode after another, so that memory stays small, and tells its
findings at the end. `survey` runs them.
"""
