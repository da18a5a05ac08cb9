"""What trains one job, wherever that is; it knows no study, only what the job holds."""
