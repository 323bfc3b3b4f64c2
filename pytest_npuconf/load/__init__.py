"""The load generator: requests on time, time stamps before anything is understood, and a check of itself."""
