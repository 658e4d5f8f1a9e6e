"""PickPlace: take a cube and put it on a drawn pad."""
