"""Other people's environments as these ones are: named fields, states that restore, experts, pictures."""
