//! What needs no device: the choice of an adapter, the layout of structs and of the arena, the packing of weights.

use std::mem::offset_of;
use std::sync::Arc;

use super::adapter::choose;
use super::halved::Halved;
use super::kernels::{self, SOURCES};
use super::layout::{Layout, SLACK_BYTES, capacity_rows, chunk_rows_max, chunks};
use super::params::{
    AffineParams, AttentionParams, BatchParams, LayerNormParams, LinearParams, MovesParams, PoolParams,
    RecurrentParams,
};
use super::recurrent::Grouping;
use super::variants::{Arithmetic, Kind, Variant, of_halves, slice_len};
use super::weights::{WeightMap, pack};
use super::{AdapterChoice, AdapterFacts, AdapterKind, GpuError, matrices};
use crate::{Activation, Init, Linear, Plan, PlanBuilder, Precision, Weights};

use AdapterChoice::{Any, Hardware, Software};
use AdapterKind::{Discrete, Integrated, Software as Llvmpipe};

#[test]
fn a_software_adapter_is_never_taken_for_a_gpu() {
    check_choice(&[Llvmpipe], Hardware, &Err(GpuError::OnlySoftware { names: names(&[Llvmpipe]) }));
    check_choice(&[Llvmpipe, Integrated], Hardware, &Ok(1));
}

#[test]
fn hardware_is_never_taken_where_software_was_asked_for() {
    check_choice(&[Discrete], Software, &Err(GpuError::OnlyHardware { names: names(&[Discrete]) }));
    check_choice(&[Discrete, Llvmpipe], Software, &Ok(1));
}

#[test]
fn any_prefers_the_strongest_hardware() {
    check_choice(&[Llvmpipe, Integrated, Discrete, Discrete], Any, &Ok(2));
    check_choice(&[Llvmpipe], Any, &Ok(0));
    check_choice(&[], Any, &Err(GpuError::NoAdapter));
    check_choice(&[], Hardware, &Err(GpuError::NoAdapter));
}

#[test]
fn several_devices_of_the_best_kind_are_equals() {
    let shown = facts(&[Llvmpipe, Discrete, Integrated, Discrete]);
    assert_eq!(
        [Hardware, Any, Software].map(|choice| choice.among(&shown)),
        [vec![1, 3], vec![1, 3], vec![0]]
    );
    assert_eq!(choose(&shown, Hardware, 1), Ok(3));
    assert_eq!(choose(&shown, Hardware, 2), Err(GpuError::TooFew { index: 2, count: 2 }));
}

#[test]
fn a_device_that_two_drivers_show_is_one() {
    let mut shown = facts(&[Discrete, Discrete, Discrete, Discrete]);
    for (facts, pci) in shown.iter_mut().zip(["0000:01:00.0", "0000:02:00.0", "0000:01:00.0", ""]) {
        pci.clone_into(&mut facts.pci);
    }
    assert_eq!(Hardware.among(&shown), [0, 1, 3], "whose place is not known may be any");
}

#[track_caller]
fn check_choice(shown: &[AdapterKind], choice: AdapterChoice, expected: &Result<usize, GpuError>) {
    assert_eq!(&choose(&facts(shown), choice, 0), expected);
}

fn facts(kinds: &[AdapterKind]) -> Vec<AdapterFacts> {
    let facts = kinds.iter().map(|&kind| AdapterFacts {
        name: format!("{kind:?}"),
        driver: String::new(),
        kind,
        software: kind == Llvmpipe,
        pci: String::new(),
    });
    facts.collect()
}

fn names(kinds: &[AdapterKind]) -> Vec<String> {
    kinds.iter().map(|kind| format!("{kind:?}")).collect()
}

/// Compares the fields of a `#[repr(C)]` struct with what naga reflects from a kernel.
macro_rules! check_struct {
    ($stem:expr, $wgsl:literal, $rust:ty { $($field:ident),* $(,)? }) => {
        let rust = vec![$((stringify!($field).to_owned(), offset_of!($rust, $field))),*];
        assert_eq!(rust, reflect($stem, $wgsl, size_of::<$rust>()), "{} of {}", $wgsl, $stem);
    };
}

#[test]
fn every_parameter_struct_is_laid_out_as_its_wgsl() {
    check_struct!(
        "linear",
        "Linear",
        LinearParams {
            src_base,
            src_stride,
            dst_base,
            dst_stride,
            mask_base,
            mask_stride,
            in_width,
            in_padded,
            out_width,
            out_vec4s,
            has_mask,
            accumulates,
            activation,
            slope,
            place_count,
            src_step,
            dst_step,
            sinks,
            slice_len,
            row_lines,
        }
    );
    check_struct!(
        "pool",
        "Pool",
        PoolParams {
            src_base,
            src_stride,
            dst_base,
            dst_stride,
            dst_width,
            step_count,
            columns,
            window,
            takes_mean,
            pad_0,
            pad_1,
            pad_2,
        }
    );
    check_struct!(
        "moves",
        "Moves",
        MovesParams {
            src_base,
            src_stride,
            dst_base,
            dst_stride,
            outer,
            inner,
            start,
            src_outer,
            src_inner,
            dst_outer,
            dst_inner,
            pad_0
        }
    );
    check_struct!(
        "affine",
        "Affine",
        AffineParams {
            src_base,
            src_stride,
            dst_base,
            dst_stride,
            add_base,
            add_stride,
            has_add,
            width,
            period,
            activation,
            slope,
            pad_0
        }
    );
    check_struct!(
        "layer_norm",
        "LayerNorm",
        LayerNormParams {
            src_base,
            src_stride,
            dst_base,
            dst_stride,
            group_count,
            group_width,
            epsilon,
            pad_0
        }
    );
    check_struct!(
        "attention",
        "Attention",
        AttentionParams {
            qkv_base,
            qkv_stride,
            previous_base,
            previous_stride,
            scores_base,
            scores_stride,
            dst_base,
            dst_stride,
            has_previous,
            head_count,
            step_count,
            head_width
        }
    );
    check_struct!(
        "recurrent",
        "Recurrent",
        RecurrentParams {
            gates_base,
            gates_stride,
            state_base,
            state_stride,
            dst_base,
            dst_stride,
            step_count,
            unit_count,
            out_width,
            is_gru,
            resumes,
            has_projection
        }
    );
    for (stem, _) in SOURCES {
        check_struct!(stem, "Batch", BatchParams { row_count, words_set, rows_before, sink_stride });
    }
}

/// Names and offsets of a WGSL struct's members; asserts that it is `bytes` long.
fn reflect(stem: &str, name: &str, bytes: usize) -> Vec<(String, usize)> {
    let source = kernels::source(stem);
    members(source, name, bytes)
}

/// The same of any WGSL.
pub(super) fn members(source: &str, name: &str, bytes: usize) -> Vec<(String, usize)> {
    let module = naga::front::wgsl::parse_str(source).unwrap();
    let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).unwrap();
    let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no struct") };
    assert_eq!(*span as usize, bytes, "size of {name}");
    members.iter().map(|member| (member.name.clone().unwrap(), member.offset as usize)).collect()
}

#[test]
fn every_kernel_has_an_entry_point_of_its_stem() {
    for (stem, source) in SOURCES {
        let module = naga::front::wgsl::parse_str(source).unwrap();
        assert!(module.entry_points.iter().any(|entry| entry.name == stem), "{stem}");
    }
}

#[test]
fn every_kernel_on_disk_is_compiled_and_has_its_twin_and_its_tests() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(root.join("wgsl")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        for folder in ["src/cpu", "src/tests"] {
            let third = root.join(folder).join(format!("{stem}.rs"));
            assert!(third.is_file(), "{} lacks {}", path.display(), third.display());
        }
        stems.push(stem);
    }
    stems.sort();
    // Part of every kernel.
    let mut compiled: Vec<_> = SOURCES.iter().map(|(stem, _)| *stem).chain(["activation"]).collect();
    compiled.sort_unstable();
    assert_eq!(stems, compiled);
}

#[test]
fn every_variant_of_a_layer_is_valid_and_has_its_entry_point() {
    let arithmetics = [Arithmetic::Single, Arithmetic::Half, Arithmetic::Matrices { lanes: 32 }];
    for (variant, arithmetic) in
        Variant::ALL.into_iter().flat_map(|variant| arithmetics.map(|arithmetic| (variant, arithmetic)))
    {
        // Of a workgroup's memory as much as there must be, and as much as there is at most.
        let kinds = Kind::ALL.into_iter().flat_map(|kind| [(kind, 16 << 10), (kind, 64 << 10)]);
        for (kind, bytes) in kinds {
            let module = valid(&variant.wgsl(kind, arithmetic, bytes));
            let entry_point = variant.entry_point(arithmetic);
            assert!(
                module.entry_points.iter().any(|entry| entry.name == entry_point),
                "{variant:?}, {arithmetic:?}"
            );
        }
    }
}

#[test]
fn layers_with_halves_in_the_arena_are_valid() {
    for halved in Halved::ALL {
        for tile in [matrices::SMALL, matrices::LARGE] {
            let (entry_point, source) = of_halves(tile, 32, halved);
            let module = valid(&source);
            assert!(module.entry_points.iter().any(|entry| entry.name == entry_point), "{halved:?}");
        }
    }
}

#[test]
fn every_form_of_a_recurrent_layer_is_valid() {
    for each in Grouping::ALL {
        for arithmetic in [Arithmetic::Single, Arithmetic::Half] {
            valid(&each.wgsl(arithmetic));
        }
    }
}

/// By the capabilities that devices are asked for.
#[track_caller]
pub(super) fn valid(source: &str) -> naga::Module {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let asked = Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SUBGROUP
        | Capabilities::SUBGROUP_BARRIER
        | Capabilities::COOPERATIVE_MATRIX;
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|error| panic!("{error}\n{source}"));
    Validator::new(ValidationFlags::all(), asked)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
    module
}

#[test]
fn a_sum_has_at_most_32_slices() {
    assert_eq!([1, 32, 1024, 1025, 4096].map(slice_len), [32, 32, 32, 64, 128]);
    assert!((1..9000).all(|width: usize| width.next_multiple_of(16).div_ceil(slice_len(width)) <= 32));
}

#[test]
fn buffers_follow_each_other_without_overlap() {
    let plan = plan_of(&[3, 5, 2]);
    let layout = Layout::new(&plan, 7);
    let bases: Vec<usize> = (0..3).map(|buffer| layout.base(crate::BufferId(buffer))).collect();
    assert_eq!(bases, [0, 28, 84], "rows of 3 and 5 floats are 4 and 8 apart");
}

#[test]
fn a_chunk_is_what_fits_the_binding() {
    let plan = plan_of(&[3, 5, 2]); // 64 bytes a row
    assert_eq!(chunk_rows_max(&plan, 63 + SLACK_BYTES), None);
    assert_eq!(chunk_rows_max(&plan, 640 + SLACK_BYTES), Some(10));
    assert_eq!(chunk_rows_max(&plan, usize::MAX), Some(4096));
}

#[test]
fn capacity_grows_in_buckets_up_to_the_chunk() {
    let capacities = [1, 16, 17, 100, 1000].map(|rows| capacity_rows(rows, 1000));
    assert_eq!(capacities, [16, 16, 32, 128, 1000]);
    assert_eq!(capacity_rows(1, 3), 3);
}

#[test]
fn chunks_cover_a_batch_once() {
    assert_eq!(chunks(7, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
    assert_eq!(chunks(0, 3).count(), 0);
}

#[test]
fn weights_are_transposed_padded_and_followed_by_their_bias() {
    let weights = Weights::new(2, 3, &[1., 2., 3., 4., 5., 6.], vec![7., 8.]);
    let weights = Arc::new(weights);
    let plan = twice(&weights);
    let map = WeightMap::new(&plan, 64);
    assert_eq!(map.owners.len(), 1, "a shared layer is uploaded once");
    assert_eq!(map.spans[0], map.spans[1]);
    let packed = pack(&plan.commands[0], Precision::F32);
    let floats: &[f32] = bytemuck::cast_slice(&packed);
    assert_eq!(floats.len(), 17 * 4);
    assert_eq!(floats[..12], [1., 4., 0., 0., 2., 5., 0., 0., 3., 6., 0., 0.]);
    assert!(floats[12..64].iter().all(|value| *value == 0.0));
    assert_eq!(floats[64..], [7., 8., 0., 0.]);
}

#[test]
fn halves_lie_two_in_a_word_and_the_bias_behind_them_whole() {
    let weights = Weights::new(2, 3, &[1., 2., 3., 4., 5., 6.], vec![0.1, 8.]);
    let plan = twice(&Arc::new(weights)).halved().expect("small weights");
    let packed = pack(&plan.commands[0], Precision::F16);
    let map = WeightMap::new(&plan, 64);
    assert_eq!(map.spans[0].map(|span| span.bytes), Some(size_of_val(packed.as_slice())));
    let halves: &[half::f16] = bytemuck::cast_slice(&packed[..128]);
    let first = halves[..12].iter().map(|half| half.to_f32()).collect::<Vec<_>>();
    assert_eq!(first, [1., 4., 0., 0., 2., 5., 0., 0., 3., 6., 0., 0.]);
    assert!(halves[12..].iter().all(|half| half.to_f32() == 0.0));
    assert_eq!(packed[128..], [0.1_f32.to_bits(), 8_f32.to_bits(), 0, 0]);
}

fn plan_of(widths: &[usize]) -> Plan {
    let mut plan = PlanBuilder::new("widths");
    let views: Vec<_> = widths.iter().map(|width| plan.buffer(*width)).collect();
    plan.finish(views[0])
}

/// One layer used by two commands.
fn twice(weights: &Arc<Weights>) -> Plan {
    let mut plan = PlanBuilder::new("twice");
    let src = plan.input(weights.in_width);
    let first = plan.buffer(weights.out_width);
    let second = plan.buffer(weights.out_width);
    for dst in [first, second] {
        plan.linear(Linear {
            src,
            dst,
            weights: Arc::clone(weights),
            init: Init::Bias,
            activation: Activation::Identity,
            mask: None,
            repeat: crate::Repeat::ONCE,
        });
    }
    plan.finish(second)
}
