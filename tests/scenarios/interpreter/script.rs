//! A script: comments, blocks of commands, and below each block what the cores said. Runs it, compares, and writes it anew.

use super::{args::Command, world::World};

/// The line between a block's commands and its output.
const RULE: &str = "----";

#[derive(Debug, Default)]
struct Block {
    /// Everything up to the rule, as written: comments, blank lines, commands.
    head: Vec<String>,
    expected: Vec<String>,
}

#[derive(Debug)]
pub struct Script {
    blocks: Vec<Block>,
    /// Comments after the last block.
    tail: Vec<String>,
}

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The script with the output of this run.
    pub text: String,
    /// How the output differs from the expectation, for people; none when it does not.
    pub difference: Option<String>,
}

impl Script {
    pub fn parse(text: &str) -> Script {
        let (mut blocks, mut block, mut output) = (Vec::new(), Block::default(), false);
        for line in text.lines().map(str::trim_end) {
            match (output, line) {
                (false, RULE) => output = true,
                (false, line) => block.head.push(line.to_owned()),
                (true, "") => {
                    blocks.push(std::mem::take(&mut block));
                    output = false;
                }
                (true, line) => block.expected.push(line.to_owned()),
            }
        }
        if output {
            blocks.push(std::mem::take(&mut block));
        }
        Script { blocks, tail: block.head }
    }

    /// Runs all blocks in one world. An error names the command.
    pub fn run(&self) -> Result<Verdict, String> {
        if self.blocks.is_empty() {
            return Err(format!("no block: a script needs commands, a line {RULE:?} and the output"));
        }
        let mut world: Option<World> = None;
        let (mut text, mut difference) = (String::new(), String::new());
        for block in &self.blocks {
            let said = block.run(&mut world)?;
            if said != block.expected {
                difference.push_str(&differ(&block.head, &block.expected, &said));
            }
            for line in block.head.iter().map(String::as_str).chain([RULE]).chain(said.iter().map(String::as_str)) {
                text.push_str(line);
                text.push('\n');
            }
            text.push('\n');
        }
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        let text = format!("{}\n", text.trim_end());
        Ok(Verdict { text, difference: Some(difference).filter(|difference| !difference.is_empty()) })
    }
}

impl Block {
    fn run(&self, world: &mut Option<World>) -> Result<Vec<String>, String> {
        let commands =
            self.head.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in commands {
            let ran = Command::parse(line).and_then(|command| match World::begin(&command)? {
                Some(begun) => {
                    *world = Some(begun);
                    Ok(())
                }
                None => world.as_mut().ok_or("a script begins with `empty` or `running`")?.run(&command),
            });
            ran.map_err(|trouble| format!("{line:?}: {trouble}"))?;
        }
        let world = world.as_mut().ok_or("a script begins with `empty` or `running`")?;
        world.finish().map_err(|trouble| format!("after {:?}: {trouble}", self.head.last().map_or("", String::as_str)))
    }
}

/// The block with lines that are missing (-) and that came instead (+).
fn differ(head: &[String], expected: &[String], said: &[String]) -> String {
    let mut text = String::new();
    for line in head.iter().filter(|line| !line.is_empty()) {
        text.push_str(&format!("    {line}\n"));
    }
    let same = expected.iter().zip(said).take_while(|(a, b)| a == b).count();
    let rest = expected.len().min(said.len()) - same;
    let end = expected.iter().rev().zip(said.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (gone, came) = (&expected[same..expected.len() - end], &said[same..said.len() - end]);
    let parts =
        [("    ", &expected[..same]), ("  - ", gone), ("  + ", came), ("    ", &expected[expected.len() - end..])];
    for (sign, lines) in parts {
        for line in lines {
            text.push_str(&format!("{sign}{line}\n"));
        }
    }
    text
}
