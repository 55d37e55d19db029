//! A training that was interrupted goes on from its last checkpoint.
//!
//! In:     the state of the optimiser and a line that names the recipe.
//! Out:    one file: the line's length and bytes, the step, then parameters and moments as f32.
//! Touches: that file; written beside it first, then renamed over it.
//! Holds:  a checkpoint of another recipe is refused, never adapted.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::optimiser::State;

/// Writes the checkpoint.
pub fn save(path: &Path, recipe: &str, state: &State) -> Result<()> {
    let mut out = (recipe.len() as u64).to_le_bytes().to_vec();
    out.extend(recipe.as_bytes());
    out.extend(state.step.to_le_bytes());
    for values in [&state.parameters, &state.first, &state.second] {
        values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    }
    let beside = path.with_extension("partial");
    fs::write(&beside, out).with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("renaming to {}", path.display()))
}

/// Reads a checkpoint of `count` parameters; `None` if there is no such file.
pub fn load(path: &Path, recipe: &str, count: usize) -> Result<Option<State>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let mut head = (recipe.len() as u64).to_le_bytes().to_vec();
    head.extend(recipe.as_bytes());
    let state = bytes.strip_prefix(head.as_slice()).filter(|rest| rest.len() == 4 + 3 * 4 * count);
    let Some((step, values)) = state.and_then(|rest| rest.split_first_chunk::<4>()) else {
        bail!("{} is not a checkpoint of this recipe; remove it to start anew", path.display());
    };
    let values: Vec<f32> = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let part = |index: usize| values[index * count..(index + 1) * count].to_vec();
    let step = u32::from_le_bytes(*step);
    Ok(Some(State { step, parameters: part(0), first: part(1), second: part(2) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back() {
        let folder = std::env::temp_dir().join(format!("xtask-checkpoint-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("state");
        let state =
            State { step: 7, parameters: vec![1.0, 2.0], first: vec![3.0, 4.0], second: vec![5.0, 6.0] };
        assert_eq!(load(&path, "recipe", 2).unwrap(), None);
        save(&path, "recipe", &state).unwrap();
        assert_eq!(load(&path, "recipe", 2).unwrap(), Some(state));
        assert!(load(&path, "another", 2).is_err());
        assert!(load(&path, "recipe", 3).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
