"""What compression changed besides the mean: classes, single answers, confidence, and what inputs may suffer.

`compare_behaviour` takes two scores of the same samples, `robustness` two files, `Gates` sets limits on what they find.

The JSON shape, as `Behaviour.to_dict` gives it and `report.json` holds it under `behaviour`. An ESTIMATE is
`{"value", "low", "high", "n"}` with a 95 % interval; `drop` is always original minus compressed, so positive is worse:

    reference, candidate    names of the two files
    kind                    "classes", "positions" (segmentation), "labels" (multi-label) or "quantities"
    n, scored               samples whose outputs were kept, and samples that were scored
    classes                 null, or
        metric, unit, interval      "accuracy", "IoU" or "F1"; "points"; how intervals were made, in words
        rows                        [{index, name, n, reference, candidate, drop}], the last three ESTIMATE or null
        worst                       null, or {index, name, drop, compared, chance, p_value}: the drop's interval is
                                    corrected for picking the worst of `compared` classes; `chance`: points by chance
    churn
        of, unit, interval          "samples" or "positions"; "percent"
        changed                     ESTIMATE
        fixed, broken, both_wrong   ESTIMATE, or null where nothing is right or wrong
        needed                      percent that no model of the new accuracy could avoid, or null
        counts                      {n, changed, fixed, broken, both_wrong}; the last three only where they are known
    calibration             null, or
        unit, interval              "points"
        reference, candidate        {ece: ESTIMATE, ece_equal_width, confidence, accuracy, bins: [{confidence,
                                    accuracy, n}]}; those of bins in 0 to 1
        rise                        ESTIMATE
    outputs                 null, or (quantities only)
        change                      {p50, p90, p99}, each ESTIMATE or null where samples are too few
        spread, largest             in the output's unit
        reference, candidate        likewise {p50, p90, p99}, of the metric of single samples, in `unit`
        unit, interval
    robustness              null, or
        n, asked, unit, scale, source, interval
        clean                       one row as in `slices`, of the inputs as they are
        slices                      [{perturbation, severity, setting, reference, candidate, drop, added, not_finite}]
        drop                        ESTIMATE or null: mean over all slices
        worst                       the row of `slices` with the largest drop, or null
    broken_samples
        n, order, pictures          how many; what they are ordered by; where black and white are known from
        shown                       at most 24 of {index, position, label, label_name, reference, candidate, picture}
                                    with reference and candidate {prediction, name, confidence, value}; a label or a
                                    prediction is a class, a list of labels, or null; picture is a PNG in base64
                                    (at most 2,048 characters) or null
        by_confidence               [{low, high, n, broken, share}] by the original's confidence where it was right
    missing                 {name of a part that is null: why, in words}
    notes                   [what was assumed, in words]
    gates                   [{gate, limit, figure, holds}], in reports and from `edgekit validate --json`, which has a
                            list of all this and adds `provider`; empty where no limit was set
"""

from edgekit.validate.behaviour.behaviour import Behaviour, compare_behaviour, figures_of
from edgekit.validate.behaviour.gates import Figures, Gates
from edgekit.validate.behaviour.pixels import Inputs
from edgekit.validate.behaviour.robustness import Robustness, robustness

__all__ = [
    "Behaviour",
    "Figures",
    "Gates",
    "Inputs",
    "Robustness",
    "compare_behaviour",
    "figures_of",
    "robustness",
]
