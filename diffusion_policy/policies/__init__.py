"""What is deployed: policies that turn observations into action chunks, and the controller that executes them."""
