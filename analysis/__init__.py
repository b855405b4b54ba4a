"""Understanding: records, laws, fits, the recommendation, figures, the report."""
