//! `getopt_long` as the OVS tools use it: options end at the first other word or at `--`, long ones may be shortened.

/// An option: its long name, its letter, and whether it takes an argument.
pub type Known = (&'static str, Option<char>, Argument);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    No,
    Required,
    /// Only if it is attached: `-vSPEC`, `--verbose=SPEC`.
    Optional,
}

/// A walk over the options at the start of an argument list.
#[derive(Debug)]
pub struct GetOpt<'a> {
    args: &'a [String],
    known: Vec<Known>,
    at: usize,
    /// What is left of an argument with several letters.
    letters: std::str::Chars<'a>,
}

impl<'a> GetOpt<'a> {
    pub fn new(args: &'a [String], known: Vec<Known>) -> GetOpt<'a> {
        GetOpt { args, known, at: 0, letters: "".chars() }
    }

    /// Where the other arguments begin, once `next` has returned None.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next option's long name and its argument.
    ///
    /// # Errors
    /// In the words of the C library.
    pub fn next(&mut self) -> Result<Option<(&'static str, Option<String>)>, String> {
        if let Some(letter) = self.letters.next() {
            return self.short(letter).map(Some);
        }
        let Some(arg) = self.args.get(self.at) else { return Ok(None) };
        if arg == "--" {
            self.at += 1;
            return Ok(None);
        }
        match arg.strip_prefix('-') {
            None | Some("") => Ok(None),
            Some(rest) => {
                self.at += 1;
                match rest.strip_prefix('-') {
                    Some(long) => self.long(long).map(Some),
                    None => {
                        self.letters = rest.chars();
                        self.next()
                    }
                }
            }
        }
    }

    fn next_argument(&mut self) -> Option<String> {
        let argument = self.args.get(self.at).cloned();
        self.at += usize::from(argument.is_some());
        argument
    }

    fn short(&mut self, letter: char) -> Result<(&'static str, Option<String>), String> {
        let known = self.known.iter().find(|(_, short, _)| *short == Some(letter));
        let Some(&(name, _, argument)) = known else { return Err(format!("invalid option -- '{letter}'")) };
        let attached = self.letters.as_str();
        if argument != Argument::No && !attached.is_empty() {
            let value = attached.to_owned();
            self.letters = "".chars();
            return Ok((name, Some(value)));
        }
        match argument {
            Argument::Required => match self.next_argument() {
                Some(value) => Ok((name, Some(value))),
                None => Err(format!("option requires an argument -- '{letter}'")),
            },
            Argument::No | Argument::Optional => Ok((name, None)),
        }
    }

    fn long(&mut self, long: &str) -> Result<(&'static str, Option<String>), String> {
        let (typed, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let (name, _, argument) = self.find(typed)?;
        match (argument, value) {
            (Argument::No, Some(_)) => Err(format!("option '--{name}' doesn't allow an argument")),
            (Argument::Required, None) => match self.next_argument() {
                Some(value) => Ok((name, Some(value))),
                None => Err(format!("option '--{name}' requires an argument")),
            },
            (_, value) => Ok((name, value)),
        }
    }

    fn find(&self, typed: &str) -> Result<Known, String> {
        if let Some(exact) = self.known.iter().find(|(name, ..)| *name == typed) {
            return Ok(*exact);
        }
        let fitting: Vec<&Known> = self.known.iter().filter(|(name, ..)| name.starts_with(typed)).collect();
        match fitting.as_slice() {
            [one] => Ok(**one),
            [] => Err(format!("unrecognized option '--{typed}'")),
            many => {
                let names: Vec<String> = many.iter().map(|(name, ..)| format!("'--{name}'")).collect();
                Err(format!("option '--{typed}' is ambiguous; possibilities: {}", names.join(" ")))
            }
        }
    }
}
