"""What trains a policy: imitation, and offline reinforcement learning. An agent is a loss; the loop is `training`'s."""
