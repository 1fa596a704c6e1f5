"""The admin's pages in a real browser. Skipped where no Chromium is installed: ``make browser`` installs it."""
