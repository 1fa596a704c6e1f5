"""What the site did, minute by minute: rows that workers write, and the histograms in them.

Charts, rates and percentiles come from here, never from a walk over the tasks themselves.
"""
