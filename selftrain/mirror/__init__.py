"""A run's finished stages in object storage: put there while it goes on, and pulled where its folder lacks them."""
