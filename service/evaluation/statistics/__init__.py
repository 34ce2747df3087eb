"""Statistics of an evaluation: arrays enter, estimates with 95 % intervals leave; one module a metric.

Nothing here knows of jobs, workers or panels. Functions named `estimate_*` return an `Estimate`: the value and its
interval. The interval is a delete-block jackknife (`intervals`) where the statistic is a function of moments, kernels
or probabilities. The argument `blocks` is the number of jackknife blocks; 1 gives the value alone, for repeated draws
whose values show their spread by themselves. Distances between rows are computed tile by tile, so that memory never
grows with the square of the number of rows. States called mergeable merge into that of all rows, whatever the split.
Everything here raises ValueError for arguments outside the documented range, for arrays of another shape, for too few
rows and for rows that are not finite, with their number in the message.
"""
