"""Speed and memory against peers, as ratios; starts the page and the engines from outside."""
