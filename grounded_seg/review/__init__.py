"""What people decide about a run, kept in `review.jsonl`: accepted, rejected, relabelled, added, thresholds.

`decisions.py` has a line's form, `decisions_file.py` the file, `decisions_of_run.py` the face of both:

    with Review(run_folder, write=True, reviewer="Ann") as review:     # one process writes, any may read
        review.notes                                                   # what to tell the user about the file
        event = review.decide(What.ACCEPT, line, [0, 2])               # `line` is the image's line of the journal
        review.decide(What.RELABEL, line, [1], "van")                  # REJECT, CLEAR likewise; on the disk on return
        review.decide(What.ACCEPT, line)                               # looked through: nothing (else) is there
        key = review.add(line, instance, "car").id                     # `instance` is of the journal's form
        review.set_threshold("car", 0.4)
        review.undo()                                                  # gives the event that was undone, or None
        review.of(line).instances                                      # key, class_name, decision, is_below(thresholds)
        review.decisions(file_name).decided                            # the same from memory, by key, unchecked
        review.decisions(file_name).was_seen                           # somebody decided something about it
"""
