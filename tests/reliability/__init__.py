"""What is measured of durability and security: see docs/reliability.md."""
