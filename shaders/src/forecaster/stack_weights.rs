//! Reads what NHITS and NBEATS blocks have in common: the numbered layers and the activation.

use crate::Activation;
use crate::loader::{Archive, Hparams, LoadError};

use super::dense::Dense;

const BLOCKS_MAX: usize = 64;
const LAYERS_MAX: usize = 64;

/// Hyper-parameters that all blocks share.
pub(super) struct BlockShape {
    /// `[in, out]` of each hidden layer.
    units: Vec<[usize; 2]>,
    activation: String,
    /// A dropout after each activation takes a number too.
    numbers_per_layer: usize,
}

/// The layers of one block.
pub(super) struct BlockLayers {
    /// The first without an activation, each other followed by `activation`.
    pub(super) hidden: Vec<Dense>,
    pub(super) theta: Dense,
    pub(super) activation: Activation,
}

/// Stack index of every block, in order.
pub(super) fn stack_of_block(hparams: &Hparams, stack_count: usize) -> Result<Vec<usize>, LoadError> {
    let counts = hparams.sizes("n_blocks")?;
    if counts.len() != stack_count || counts.is_empty() {
        return Err(LoadError::parameter(
            "n_blocks",
            format!("needs one entry for each of {stack_count} stacks"),
        ));
    }
    let total: usize = counts.iter().sum();
    if total > BLOCKS_MAX {
        return Err(LoadError::TooLarge { what: "the number of blocks", len: total, len_max: BLOCKS_MAX });
    }
    Ok(counts.iter().enumerate().flat_map(|(stack, &count)| std::iter::repeat_n(stack, count)).collect())
}

impl BlockShape {
    pub(super) fn read(hparams: &Hparams) -> Result<Self, LoadError> {
        let wrong = |problem: &str| LoadError::parameter("mlp_units", problem);
        let units: Option<Vec<[usize; 2]>> =
            hparams.size_lists("mlp_units")?.iter().map(|pair| pair.as_slice().try_into().ok()).collect();
        let units = units.ok_or_else(|| wrong("holds something other than [in, out] pairs"))?;
        if units.is_empty() || units.len() > LAYERS_MAX {
            return Err(wrong("is empty or too long"));
        }
        if units.windows(2).any(|pair| pair[0][1] != pair[1][0]) {
            return Err(wrong("has layers that do not fit each other"));
        }
        let dropout = hparams.number("dropout_prob_theta")?;
        let numbers_per_layer = if dropout > 0.0 { 3 } else { 2 };
        Ok(Self { units, activation: hparams.text("activation")?.to_owned(), numbers_per_layer })
    }

    /// Inputs of a block's theta.
    pub(super) fn theta_in_width(&self) -> usize {
        self.units[self.units.len() - 1][1]
    }

    /// Layers of block `block`, whose theta has `theta_width` numbers.
    pub(super) fn take(
        &self,
        archive: &Archive,
        block: usize,
        in_width: usize,
        theta_width: usize,
    ) -> Result<BlockLayers, LoadError> {
        let name = |number: usize| format!("blocks.{block}.layers.{number}");
        let mut hidden = vec![Dense::take(archive, &name(0), self.units[0][0], in_width)?];
        let mut number = 1;
        let mut slopes = Vec::new();
        for &[layer_in, layer_out] in &self.units {
            hidden.push(Dense::take(archive, &name(number), layer_out, layer_in)?);
            if self.activation == "PReLU" {
                slopes.extend(archive.take(&format!("{}.weight", name(number + 1)), &[1])?);
            }
            number += self.numbers_per_layer;
        }
        let theta = Dense::take(archive, &name(number), theta_width, self.theta_in_width())?;
        Ok(BlockLayers { hidden, theta, activation: activation(&self.activation, &slopes)? })
    }
}

pub(super) fn activation(name: &str, slopes: &[f64]) -> Result<Activation, LoadError> {
    Ok(match name {
        "ReLU" => Activation::Relu,
        "Softplus" => Activation::Softplus,
        "Tanh" => Activation::Tanh,
        "SELU" => Activation::Selu,
        "LeakyReLU" => Activation::Leaky(0.01),
        "Sigmoid" => Activation::Sigmoid,
        "PReLU" => match slopes {
            // The library shares one slope among the activations of a block and stores it once for each.
            [slope, rest @ ..] if rest.iter().all(|other| other == slope) => Activation::Leaky(*slope as f32),
            _ => return Err(LoadError::unsupported("PReLU slopes that differ within a block")),
        },
        other => return Err(LoadError::unsupported(format!("activation `{other}`"))),
    })
}
