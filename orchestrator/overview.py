"""What `growpoint --help` prints; nothing is imported to answer it."""

OVERVIEW = """\
growpoint: decide when to grow a Mixture-of-Experts checkpoint

usage: growpoint COMMAND SWEEP [KEY=VALUE ...] [options]

run a sweep
  plan        show what it would run, what that costs and what is done already
  launch      run what is missing, on SLURM or here; repeat it to resume
  status      show how far it is
  logs        show what a stage's job wrote last
  cancel      stop its jobs; finished stages stay

learn from it
  results     list its finished cells
  fit         fit scaling laws to its results and compare them
  plot        draw its figures
  recommend   answer: grow, continue or start over?
  next        say which runs would settle that, and write a sweep of them
  report      write tables and figures into one page, and Markdown

by hand
  grow        grow one checkpoint on disk
  inspect     show what a checkpoint is, its weight norms, and what two lineages learnt
  series      list checkpoints that exist already, and what is sunk into each
  completion  print a shell's completion script

examples
  growpoint plan demo
  growpoint launch demo recipe.lr=1e-3 name=demo-slow
  growpoint launch demo cluster=slurm cluster.partition=gpu
  growpoint recommend demo --extra 3e11
  growpoint fit --results mine.csv --column accuracy=avg_acc
"""
