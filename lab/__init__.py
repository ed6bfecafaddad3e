"""The lab: a real Asterisk, phones, a CRM sandbox. Serves the demo, the tests and the benchmarks."""
