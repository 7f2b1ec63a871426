"""What past weeks teach about the ones to come, and past tasks about how long others will last."""
