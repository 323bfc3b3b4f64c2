"""What a run leaves: terminal lines, JUnit properties, results.json."""
