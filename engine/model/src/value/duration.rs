//! `duration`: months, days and nanoseconds, kept apart because months differ in days and days in hours.

/// A duration. All parts have the same sign, or are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Duration {
    months: i32,
    days: i32,
    nanoseconds: i64,
}

impl Duration {
    /// None when the signs of the parts differ.
    pub fn new(months: i32, days: i32, nanoseconds: i64) -> Option<Self> {
        let none_negative = months >= 0 && days >= 0 && nanoseconds >= 0;
        let none_positive = months <= 0 && days <= 0 && nanoseconds <= 0;
        (none_negative || none_positive).then_some(Self {
            months,
            days,
            nanoseconds,
        })
    }

    /// Months.
    pub fn months(&self) -> i32 {
        self.months
    }

    /// Days.
    pub fn days(&self) -> i32 {
        self.days
    }

    /// Nanoseconds.
    pub fn nanoseconds(&self) -> i64 {
        self.nanoseconds
    }
}
