//! What a value must be, and what to write where it is something else.

use std::num::NonZero;

use toml::Value;

/// Why a value, or an element of it, is not what a key wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong {
    /// Where in the value, such as `[1]`; empty for the value itself.
    pub at: String,
    /// What is wrong and, where that is known, what to write.
    pub message: String,
}

/// A type that a value of the config can be read as.
pub trait FromValue: Sized {
    /// Reads `value`.
    ///
    /// # Errors
    /// All that is wrong with it.
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>>;
}

fn wrong<T>(message: impl Into<String>) -> Result<T, Vec<Wrong>> {
    let at = String::new();
    let message = message.into();
    Err(vec![Wrong { at, message }])
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
        match value {
            Value::String(text) => Ok(text),
            Value::Array(list) => match &list[..] {
                [Value::String(text)] => {
                    wrong(format!("must be text and not a list: write it as {text:?}"))
                }
                _ => wrong("must be text and not a list"),
            },
            Value::Table(_) => wrong("must be text"),
            other => {
                let text = other.to_string();
                wrong(format!("must be text: write it as {text:?}"))
            }
        }
    }
}

impl FromValue for Box<str> {
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
        String::from_value(value).map(String::into_boxed_str)
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
        match value {
            Value::Boolean(value) => Ok(value),
            Value::String(_) => wrong("must be true or false, without quotes"),
            _ => wrong("must be true or false"),
        }
    }
}

impl FromValue for toml::Table {
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
        match value {
            Value::Table(table) => Ok(table),
            _ => wrong("must be a table, such as { … }"),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
        let list = match value {
            Value::Array(list) => list,
            Value::String(text) => {
                return wrong(format!("must be a list: write it as [{text:?}]"));
            }
            _ => return wrong("must be a list"),
        };
        let (mut read, mut all) = (Self::with_capacity(list.len()), Vec::new());
        for (index, value) in list.into_iter().enumerate() {
            match T::from_value(value) {
                Ok(value) => read.push(value),
                Err(inner) => all.extend(inner.into_iter().map(|wrong| Wrong {
                    at: format!("[{index}]{}", wrong.at),
                    ..wrong
                })),
            }
        }
        if all.is_empty() { Ok(read) } else { Err(all) }
    }
}

/// Reads a whole number; `range` says which ones fit.
fn whole<T>(value: &Value, range: impl FnOnce() -> String) -> Result<T, Vec<Wrong>>
where
    T: TryFrom<i64>,
{
    match value {
        Value::Integer(number) => match T::try_from(*number) {
            Ok(number) => Ok(number),
            Err(_out_of_range) => wrong(range()),
        },
        Value::String(text) => match text.parse::<i64>() {
            Ok(number) => wrong(format!(
                "must be a number: write it as {number}, without quotes"
            )),
            Err(_) => wrong("must be a whole number, without quotes"),
        },
        _ => wrong("must be a whole number"),
    }
}

macro_rules! bounded {
    ($($number:ty),*) => {$(
        impl FromValue for $number {
            fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
                let (min, max) = (Self::MIN, Self::MAX);
                whole(&value, || format!("must be a whole number between {min} and {max}"))
            }
        }
    )*};
}
bounded!(u8, u16, u32);

macro_rules! unbounded {
    ($($number:ty),*) => {$(
        impl FromValue for $number {
            fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
                whole(&value, || "must be a whole number, 0 at least".to_owned())
            }
        }
    )*};
}
unbounded!(u64, usize);

macro_rules! nonzero {
    ($($number:ty),*) => {$(
        impl FromValue for NonZero<$number> {
            fn from_value(value: Value) -> Result<Self, Vec<Wrong>> {
                let least = || "must be a whole number, 1 at least".to_owned();
                let number: $number = whole(&value, least)?;
                Self::new(number).map_or_else(|| wrong(least()), Ok)
            }
        }
    )*};
}
nonzero!(u16, u32, u64, usize);

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a value that is to be a `T`.
    fn told<T: FromValue>(value: impl Into<Value>) -> String {
        let Err(wrong) = T::from_value(value.into()) else {
            return "it is right".to_owned();
        };
        let lines = wrong
            .iter()
            .map(|wrong| format!("{}: {}", wrong.at, wrong.message));
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_value_of_another_type_says_what_to_write() {
        let list = told::<Vec<String>>("r.lan");
        assert_eq!(list, ": must be a list: write it as [\"r.lan\"]");
        assert_eq!(told::<Vec<String>>(5), ": must be a list");
        let elements = vec![Value::from(1), Value::from("a"), Value::from(true)];
        assert_eq!(
            told::<Vec<String>>(elements),
            "[0]: must be text: write it as \"1\"; [2]: must be text: write it as \"true\""
        );
        assert_eq!(told::<String>(60), ": must be text: write it as \"60\"");
        let text = told::<String>(vec!["a"]);
        assert_eq!(text, ": must be text and not a list: write it as \"a\"");
        assert_eq!(told::<String>(toml::Table::new()), ": must be text");
        let table = told::<toml::Table>("x");
        assert_eq!(table, ": must be a table, such as { … }");
        let flag = told::<bool>("yes");
        assert_eq!(flag, ": must be true or false, without quotes");
        assert_eq!(told::<bool>(1), ": must be true or false");
    }

    #[test]
    fn a_number_says_which_ones_fit() {
        let number = told::<u16>("443");
        assert_eq!(
            number,
            ": must be a number: write it as 443, without quotes"
        );
        let number = told::<u16>("x");
        assert_eq!(number, ": must be a whole number, without quotes");
        assert_eq!(told::<u16>(1.5), ": must be a whole number");
        let number = told::<u16>(-1);
        assert_eq!(number, ": must be a whole number between 0 and 65535");
        let number = told::<usize>(-1);
        assert_eq!(number, ": must be a whole number, 0 at least");
        let number = told::<NonZero<usize>>(0);
        assert_eq!(number, ": must be a whole number, 1 at least");
        assert_eq!(u32::from_value(Value::from(7)), Ok(7));
    }
}
