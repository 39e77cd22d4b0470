"""Micro-batching: one process of a worker, the network process, runs the networks for all that run jobs.

A process that runs a job decodes and prepares its picture, and hands it over (`shared`) by what both know (`letters`);
the network process (`network_process`) takes what waits, runs it as a batch (`batches`) and answers each. The main
process starts it, and another one where it ends (`supervisor`). It knows no job: what it holds may be lost at any time.
"""
