"""A driver that has a defect of its own."""


class Broken:
    def __init__(self):
        1 / 0  # noqa: B018
