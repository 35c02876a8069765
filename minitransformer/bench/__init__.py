"""Timings that can be believed: interleaved, warmed up, with an interval and a stated limit.

Times of one machine vary from minute to minute; ratios within one run do not. Every
comparison therefore alternates its candidates in one process with one number of threads.
"""
