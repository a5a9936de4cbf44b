//! Two macros that declare operations and lists, and the types that describe a declaration.

/// The description of an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Declaration {
    /// Its name: the value of `command`.
    pub name: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// Names of its members.
    pub members: &'static [&'static str],
}

/// Declares operations. Each member has a type, and the function of [`super::member`] that reads it.
macro_rules! operations {
    ($(
        $(#[doc = $help:literal])+
        $name:literal $Operation:ident {
            $($(#[$about:meta])* $member:ident: $kind:ty = $read:ident($($argument:expr),*),)*
        }
    )+) => {
        $(
            $(#[doc = $help])+
            #[derive(Clone, Debug, Default, PartialEq, Eq)]
            pub struct $Operation {
                $($(#[$about])* pub $member: $kind,)*
            }
        )+

        /// A request for any operation but `publish`, which is a [`Publish`](crate::api::Publish).
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Request {
            $($(#[doc = $help])+ $Operation($Operation),)+
        }

        /// All operations.
        pub static OPERATIONS: &[Declaration] = &[
            PUBLISH,
            $(Declaration {
                name: $name,
                help: concat!($($help),+).trim_ascii(),
                members: &[$(stringify!($member)),*],
            },)+
        ];

        impl Request {
            /// Reads the members of the operation with this name. Does not check for unknown members.
            #[allow(unused_variables, reason = "some operations have no members")]
            pub fn read(name: &str, members: &impl Source) -> Result<Request, Refusal> {
                match name {
                    $($name => Ok(Request::$Operation($Operation {
                        $($member: $read(Member::of(stringify!($member), members) $(, $argument)*)?,)*
                    })),)+
                    _ => Err(Refusal::UnknownCommand(OPERATIONS)),
                }
            }

            /// The operation's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Request::$Operation(_) => $name,)+
                }
            }

            /// The members that are given, in the order of the declaration.
            pub fn members(&self) -> Vec<(&'static str, Given<'_>)> {
                match self {
                    $(Request::$Operation($Operation { $($member),* }) => {
                        let members: Vec<(&'static str, Option<Given<'_>>)> =
                            vec![$((stringify!($member), $member.written()),)*];
                        members.into_iter().filter_map(|(name, given)| Some((name, given?))).collect()
                    })+
                }
            }
        }

        $(
            impl From<$Operation> for Request {
                fn from(request: $Operation) -> Request {
                    Request::$Operation(request)
                }
            }
        )+
    };
}

pub(super) use operations;

/// A member of a row.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name; `_s` and `_bytes` at its end are units.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
}

impl Column {
    /// Whether it holds a number.
    pub fn is_number(self) -> bool {
        matches!(self.kind, "u16" | "u32" | "u64" | "usize" | "Option<u64>")
    }

    /// Whether some rows may lack it.
    pub fn is_optional(self) -> bool {
        self.kind.starts_with("Option<")
    }
}

/// Declares what lists hold: a struct for a row of each, and [`Rows`] for a page of any.
macro_rules! rows {
    ($($(#[$about:meta])* $list:literal $Rows:ident($Row:ident {
        $($(#[$attribute:meta])* $member:ident: $kind:ty,)+
    }))+) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
            pub struct $Row {
                $($(#[$attribute])* pub $member: $kind,)+
            }
        )+

        /// The rows of a page.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Rows {
            $($(#[$about])* $Rows(Vec<$Row>),)+
        }

        /// The member of the reply that holds the rows of each list, and the members of a row.
        pub const COLUMNS: &[(&str, &[Column])] =
            &[$(($list, &[$(Column { name: stringify!($member), kind: stringify!($kind) }),+])),+];

        impl Rows {
            /// Number of rows.
            pub fn len(&self) -> usize {
                match self {
                    $(Rows::$Rows(rows) => rows.len(),)+
                }
            }

            /// Whether the list is empty.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// Appends the rows of another shard. Both must be of the same list.
            pub fn append(&mut self, more: Rows) {
                match (self, more) {
                    $((Rows::$Rows(rows), Rows::$Rows(mut more)) => rows.append(&mut more),)+
                    _ => {}
                }
            }
        }
    };
}

pub(super) use rows;
