"""The report of a study: claims, the paper's tables and figures, a page. No torch."""
