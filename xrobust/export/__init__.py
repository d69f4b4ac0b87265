"""What a user takes away: bundles that load without running any code from them."""
