//! The kernel that stays: it waits for a request, answers it, and waits for the next, until it is told to stop.
//!
//! Host and kernel share two pieces of memory. One lies on the device and the host writes it: one control word for each
//! of eight sets, and the sets, whose words are the inputs and results of every row. The other lies with the host: what
//! the kernel gave up on, and the outputs. Request `n` uses set `n % 8`. Its control word is the number and the count of
//! rows; inputs and outputs are words, and need no other signal. Two launches of the kernel take turns, one behind the
//! other in a queue; each has a start word of its own, in which the host tells it its first request.
//!
//! Who has answered its part of request `n` empties the words of `n - 2`. Nobody needs them: the host asks `n` when all
//! outputs of `n - 1` are there, and every workgroup with rows has a part in those, behind what it read for `n - 2`. And
//! nobody has written there yet: the host asks `n + 6`, which uses them, when `n + 5` was answered, and all who empty
//! words have a part in every answer. A stop empties them as well, for the launch that comes next. It has a number like a
//! request but no answer, and the request behind it is told at once, while words of the two before it may not be emptied
//! yet: with four sets those would be its own.
//!
//! A launch that nobody tells anything for long leaves by itself, as if it had been told to stop at the request that it
//! waits for, and says so. The one behind it runs from then on and waits for its start word: so it hears the host as it
//! would have otherwise.
//!
//! A workgroup that has waited too long for a word writes nothing any more, so that no answer is made of what is not
//! there: the host misses an output and knows.

mod wgsl;

use super::{INVOCATIONS, POLLS_MAX};
use crate::Linear;

/// Requests are counted in this many bits; a control word has the rows below them.
pub(in crate::gpu) const ROW_BITS: u32 = 6;
pub(in crate::gpu) const REQUEST_MASK: u32 = u32::MAX >> ROW_BITS;
/// In the place of a count of rows.
pub(in crate::gpu) const STOP: u32 = (1 << ROW_BITS) - 1;
/// The same: the host has not said anything.
const WAITS: u32 = STOP - 1;
/// Sets of words that take turns: a power of two, as the count of requests wraps.
pub(in crate::gpu) const SETS: u32 = 8;
/// How many requests ago the words were used that a request empties.
pub(in crate::gpu) const EMPTIED_BEHIND: u32 = 2;
/// Words from one that is polled by itself to the next: lines of the second level cache.
pub(in crate::gpu) const LINE: usize = 32;
/// Words before the first set: a control word a set, each on its own line, behind one that is free.
pub(in crate::gpu) const HEADER: usize = LINE * (1 + SETS as usize);
/// Words before the first output.
pub(in crate::gpu) const OUTPUTS_AT: usize = LINE;
/// Requests of one launch at most.
pub(in crate::gpu) const TURNS_MAX: u32 = 1 << 20;
/// In the place of a first request: the host has not said it yet. What it says has fewer bits.
pub(in crate::gpu) const NOT_YET: u32 = u32::MAX;
/// The first of two words, one a launch: whether it has left by itself.
pub(in crate::gpu) const LEFT_AT: usize = 1;
/// Polls for the next request, two seconds or so, before a launch leaves by itself: nobody looks after it any more.
const IDLE_POLLS_MAX: u32 = 4 << 20;
/// llvmpipe ends every loop of a kernel once all of them together have turned 65,535 times; so a single workgroup counts
/// what it turns, leaves before that, and rests between two polls by meeting itself, for some microseconds.
const LOOPS_MAX_SOLO: u32 = 60_000;
const RESTS_SOLO: usize = 8;

/// Outputs of a workgroup in the widest layer, at least where there are as many: a subgroup each.
const OUTPUTS_MIN: usize = 8;

/// Rows of a group of workgroups, and the most workgroups of a group, for requests of up to `rows_max` rows: all groups must
/// run at once, one workgroup a multiprocessor of a large device, and the more there are, the more poll the same words.
pub(super) fn shape(rows_max: usize) -> (usize, usize) {
    match rows_max {
        0..=1 => (1, 32),
        2..=8 => (4, 64),
        _ => (4, 16),
    }
}

/// Workgroups of a group for a widest layer of so many outputs. Each has a part in that layer: one that had none in any would
/// be bound to no answer, and might empty words when they are in use again.
pub(super) fn workgroups(widest: usize, rows_max: usize) -> usize {
    let most = widest.div_ceil(OUTPUTS_MIN).min(shape(rows_max).1).max(1);
    widest.div_ceil(widest.div_ceil(most).max(1)).max(1)
}

/// Length and count of a layer's slices, and outputs at a time, for a workgroup that has `outputs` of them: a power of two
/// of everything, so that a subgroup adds the slices up, and slices enough for each row to have one that ends it.
pub(super) fn slices(linear: &Linear, outputs: usize, group_rows: usize) -> [usize; 3] {
    let at_a_time = outputs.next_power_of_two().min(INVOCATIONS / group_rows);
    let slices = INVOCATIONS / at_a_time;
    [linear.weights.in_width.div_ceil(slices).next_multiple_of(4), slices, at_a_time]
}

/// What both kinds of kernel that stay have: their memory, and the words that host and kernel say.
pub(in crate::gpu) fn protocol(out_width: usize) -> String {
    format!(
        "@group(0) @binding(0) @coherent @volatile var<storage, read_write> results: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(2) @coherent @volatile var<storage, read_write> sink: array<atomic<u32>>;
@group(0) @binding(3) @coherent @volatile var<storage, read_write> start: array<atomic<u32>>;
var<workgroup> order: u32;
var<workgroup> lost: atomic<u32>;

fn give_up() {{
    gave_up = true;
    atomicStore(&lost, 1u);
    atomicStore(&sink[0], 1u);
}}

fn put(at: u32, value: f32) {{
    if !gave_up && atomicLoad(&lost) == 0u {{ atomicStore(&results[at], said(value)); }}
}}

fn emit(row: u32, out: u32, value: f32) {{
    if !gave_up && atomicLoad(&lost) == 0u {{
        atomicStore(&sink[{OUTPUTS_AT}u + row * {out_width}u + out], said(value));
    }}
}}

// Nobody has asked for long.
fn leave() {{ atomicStore(&sink[{LEFT_AT}u + atomicLoad(&start[1])], 1u); }}

// Rows of a request; none when it is over already, and {WAITS} while nobody asks.
fn look(request: u32) -> u32 {{
    if atomicLoad(&lost) != 0u {{ return {STOP}u; }}
    let word = atomicLoad(&results[{LINE}u * (1u + request % {SETS}u)]);
    let ahead = ((word >> {ROW_BITS}u) - request) & {REQUEST_MASK}u;
    if ahead > {half}u {{ return {WAITS}u; }}
    return select(0u, word & {STOP}u, ahead == 0u);
}}",
        half = REQUEST_MASK / 2,
    )
}

/// A function that empties the words of the request before the one before, by `all` invocations.
pub(in crate::gpu) fn empty(set_words: usize) -> String {
    format!(
        "
fn empty(request: u32, first: u32, all: u32) {{
    let other = {HEADER}u + (request + {ahead}u) % {SETS}u * {set_words}u;
    for (var at = first; at < {set_words}u; at += all) {{ atomicStore(&results[other + at], EMPTY); }}
}}
",
        ahead = SETS - EMPTIED_BEHIND,
    )
}

/// Until words are there: `loads` fetches them all at once, since a poll is a trip to the second level cache, and `missing`
/// says whether one is not there yet.
pub(in crate::gpu) fn all_at_once(loads: &str, missing: &str) -> String {
    format!(
        "        {{ var lacks = true;
        let turns = select({POLLS_MAX}u, 1u, gave_up);
        for (var turn = 0u; turn < turns && lacks; turn++) {{
{loads}            lacks = {missing};
        }}
        if lacks {{ give_up(); }} }}
"
    )
}

/// Until the host has said with which request this launch begins: `request_first`, the same for all invocations.
pub(in crate::gpu) fn begin(solo: bool) -> String {
    let (declare, polls) = if solo {
        let rest = "        workgroupBarrier();\n".repeat(RESTS_SOLO);
        let polls = format!(
            "    for (; loops > 0u; loops--) {{
        if index == 0u {{ order = atomicLoad(&start[0]); }}
        request_first = workgroupUniformLoad(&order);
        if request_first != {NOT_YET}u {{ break; }}
{rest}    }}
    if request_first == {NOT_YET}u && index == 0u {{ leave(); }}"
        );
        (format!("    var loops = {LOOPS_MAX_SOLO}u;\n"), polls)
    } else {
        let polls = format!(
            "    if index == 0u {{
        var begins = {NOT_YET}u;
        for (var poll = 0u; poll < {IDLE_POLLS_MAX}u && begins == {NOT_YET}u; poll++) {{ begins = atomicLoad(&start[0]); }}
        if begins == {NOT_YET}u {{ leave(); }}
        order = begins;
    }}
    request_first = workgroupUniformLoad(&order);"
        );
        (String::new(), polls)
    };
    format!(
        "{declare}    var request_first = {NOT_YET}u;
{polls}
    if request_first == {NOT_YET}u {{ return; }}
"
    )
}

/// Until somebody asks for `request`; `row_count` is the same for all invocations. `loops` are those of an answer, at
/// most, as a single workgroup counts them.
pub(in crate::gpu) fn wait(solo: bool, loops: usize) -> String {
    if solo {
        let rest = "        workgroupBarrier();\n".repeat(RESTS_SOLO);
        return format!(
            "    var row_count = {WAITS}u;
    for (; loops > {loops}u; loops--) {{
        if index == 0u {{ order = look(request); }}
        row_count = workgroupUniformLoad(&order);
        if row_count != {WAITS}u {{ break; }}
{rest}    }}
    if row_count == {WAITS}u {{
        if index == 0u {{ leave(); }}
        row_count = {STOP}u;
    }}
    loops -= min(loops, {loops}u);
"
        );
    }
    format!(
        "    if index == 0u {{
        var seen = {WAITS}u;
        for (var poll = 0u; poll < {IDLE_POLLS_MAX}u && seen == {WAITS}u; poll++) {{ seen = look(request); }}
        if seen == {WAITS}u {{ leave(); seen = {STOP}u; }}
        order = seen;
    }}
    let row_count = workgroupUniformLoad(&order);
"
    )
}

/// The same with words of the request: `loads` fetches them into variables, and `missing` says whether one is not there
/// yet. A poll is a trip to the second level cache, and this way there is one less. After the next barrier `order` has
/// the rows.
pub(in crate::gpu) fn wait_with(loads: &str, missing: &str) -> String {
    format!(
        "        var seen = {WAITS}u;
        for (var poll = 0u; poll < {IDLE_POLLS_MAX}u && seen == {WAITS}u; poll++) {{
            seen = look(request);
{loads}        }}
        if index == 0u {{
            if seen == {WAITS}u {{ leave(); seen = {STOP}u; }}
            order = seen;
        }}
        var lacks = seen < {WAITS}u && seen != 0u && ({missing});
        for (var turn = 0u; turn < {POLLS_MAX}u && lacks; turn++) {{
{loads}            lacks = {missing};
        }}
        if lacks {{ give_up(); }}
"
    )
}

#[cfg(test)]
mod tests {
    use super::{shape, workgroups};

    #[test]
    fn every_workgroup_has_a_part_in_the_widest_layer() {
        for (widest, rows_max) in (1..2000).flat_map(|widest| [1, 8, 32].map(|rows| (widest, rows))) {
            let count = workgroups(widest, rows_max);
            let outputs_here = widest.div_ceil(count);
            assert_eq!(widest.div_ceil(outputs_here), count, "{widest} outputs");
            assert!(count <= shape(rows_max).1, "{widest} outputs: {count} workgroups");
        }
        assert_eq!((workgroups(257, 1), workgroups(512, 1), workgroups(96, 1)), (29, 32, 12));
    }
}
