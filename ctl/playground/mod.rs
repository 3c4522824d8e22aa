//! stub
use crate::cli::{ChildArgs, PlaygroundArgs};
pub async fn run(_args: PlaygroundArgs) -> anyhow::Result<()> {
    Ok(())
}
pub fn become_child(_args: ChildArgs) -> anyhow::Result<()> {
    Ok(())
}
