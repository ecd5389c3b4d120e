//! The command line: few words, none of which is for users.

use std::path::PathBuf;

/// Shown when something is wrong with it.
pub(crate) const USAGE: &str = "usage: limits [--smoke] [--only GROUP[,GROUP]] [--operations N] [--json FILE]\n\
                                groups: whole, idle, durable, flight, fan-out, agent, many";

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Whole,
    Idle,
    Durable,
    Flight,
    FanOut,
    Agent,
    Many,
}

impl Group {
    pub(crate) const ALL: [Self; 7] =
        [Self::Whole, Self::Idle, Self::Durable, Self::Flight, Self::FanOut, Self::Agent, Self::Many];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Idle => "idle",
            Self::Durable => "durable",
            Self::Flight => "flight",
            Self::FanOut => "fan-out",
            Self::Agent => "agent",
            Self::Many => "many",
        }
    }
}

/// What this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Measure,
    Skeleton(SkeletonOptions),
    Victim,
    Notice { directory: PathBuf, count: usize },
}

/// What a skeleton is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SkeletonOptions {
    /// Where the hook listens.
    pub(crate) hook: String,
    /// One event as the scheduler sends it, encoded.
    pub(crate) event: PathBuf,
    /// Events of one operation.
    pub(crate) events: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) role: Role,
    pub(crate) smoke: bool,
    pub(crate) operations: Option<usize>,
    pub(crate) json: Option<PathBuf>,
    only: Vec<Group>,
}

impl Arguments {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self { role: Role::Measure, smoke: false, operations: None, json: None, only: Vec::new() };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--smoke" => arguments.smoke = true,
                "--json" => arguments.json = Some(value()?.into()),
                "--operations" => {
                    let text = value()?;
                    arguments.operations = Some(text.parse().map_err(|_| format!("{text:?} is no number"))?);
                }
                "--only" => {
                    for name in value()?.split(',') {
                        let known = Group::ALL.into_iter().find(|group| group.name() == name);
                        arguments.only.push(known.ok_or_else(|| format!("there is no group {name:?}"))?);
                    }
                }
                "victim" => arguments.role = Role::Victim,
                "notice" => {
                    let (directory, count) = (value()?.into(), value()?);
                    let count = count.parse().map_err(|_| format!("{count:?} is no number"))?;
                    arguments.role = Role::Notice { directory, count };
                }
                "skeleton" => {
                    let (hook, event, events) = (value()?, value()?.into(), value()?);
                    let events = events.parse().map_err(|_| format!("{events:?} is no number"))?;
                    arguments.role = Role::Skeleton(SkeletonOptions { hook, event, events });
                }
                other => return Err(format!("{other:?} is not known")),
            }
        }
        Ok(arguments)
    }

    pub(crate) fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }
}
