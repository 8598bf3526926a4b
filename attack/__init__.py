"""What hostile clients and long days do to the page: it is started on this machine's loopback network and asked there, nowhere else."""
