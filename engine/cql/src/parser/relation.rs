//! WHERE and IF clauses.

use super::cursor::{Parse, Parser};
use crate::ast::{
    ColumnCondition, ColumnPart, Condition, CustomIndexExpression, Name, Operand, Operator, QualifiedName,
    Relation, RelationSubject, Term, WhereClause,
};
use crate::lexer::{Keyword, TokenKind};

impl TokenKind {
    /// `= != < <= > >=`
    fn comparison(self) -> Option<Operator> {
        match self {
            Self::Equal => Some(Operator::Equal),
            Self::NotEqual => Some(Operator::NotEqual),
            Self::Less => Some(Operator::Less),
            Self::LessOrEqual => Some(Operator::LessOrEqual),
            Self::Greater => Some(Operator::Greater),
            Self::GreaterOrEqual => Some(Operator::GreaterOrEqual),
            _ => None,
        }
    }
}

impl Parser<'_> {
    /// `[WHERE ..]`
    pub(super) fn optional_where_clause(&mut self) -> Parse<WhereClause> {
        if self.take_keyword(Keyword::Where) {
            self.where_clause()
        } else {
            Ok(WhereClause::default())
        }
    }

    /// `relation (AND relation)*`, after WHERE
    pub(super) fn where_clause(&mut self) -> Parse<WhereClause> {
        let mut clause = WhereClause::default();
        loop {
            if self.word_at(0, "expr") && self.kind_at(1) == TokenKind::OpenParenthesis {
                clause.expressions.push(self.custom_index_expression()?);
            } else {
                clause.relations.push(self.relation()?);
            }
            if !self.take_keyword(Keyword::And) {
                return Ok(clause);
            }
        }
    }

    /// `expr(index, term)`
    fn custom_index_expression(&mut self) -> Parse<CustomIndexExpression> {
        self.position += 2;
        let index = QualifiedName {
            keyspace: None,
            name: self.index_name()?,
        };
        self.expect(TokenKind::Comma)?;
        let term = self.term()?;
        self.expect(TokenKind::CloseParenthesis)?;
        Ok(CustomIndexExpression { index, term })
    }

    fn relation(&mut self) -> Parse<Relation> {
        match self.kind() {
            TokenKind::Keyword(Keyword::Token) => {
                self.advance();
                let columns = self.columns()?;
                self.token_relation(RelationSubject::Token(columns))
            }
            TokenKind::OpenParenthesis => {
                let column = self.kind_at(1).is_column_name();
                if column && matches!(self.kind_at(2), TokenKind::Comma | TokenKind::CloseParenthesis) {
                    let columns = self.columns()?;
                    return self.multi_column_relation(RelationSubject::Columns(columns));
                }
                self.advance();
                let relation = self.nested(Self::relation)?;
                self.expect(TokenKind::CloseParenthesis)?;
                Ok(relation)
            }
            _ => self.column_relation(),
        }
    }

    /// `(a, b)`
    fn columns(&mut self) -> Parse<Vec<Name>> {
        self.enclosed(
            TokenKind::OpenParenthesis,
            TokenKind::CloseParenthesis,
            Self::column_name,
        )
    }

    fn comparison(&mut self) -> Parse<Operator> {
        let operator = self.kind().comparison().ok_or_else(|| self.no_viable())?;
        self.advance();
        Ok(operator)
    }

    fn column_relation(&mut self) -> Parse<Relation> {
        let column = self.column_name()?;
        if self.take(TokenKind::OpenBracket) {
            let key = self.term()?;
            self.expect(TokenKind::CloseBracket)?;
            let operator = self.comparison()?;
            let operand = Operand::Term(self.term()?);
            return Ok(Relation {
                subject: RelationSubject::Element { column, key },
                operator,
                operand,
            });
        }
        let (operator, operand) = self.column_restriction()?;
        Ok(Relation {
            subject: RelationSubject::Column(column),
            operator,
            operand,
        })
    }

    fn column_restriction(&mut self) -> Parse<(Operator, Operand)> {
        if let Some(operator) = self.kind().comparison() {
            self.advance();
            return Ok((operator, Operand::Term(self.term()?)));
        }
        let TokenKind::Keyword(keyword) = self.kind() else {
            return Err(self.no_viable());
        };
        match keyword {
            Keyword::Between => {
                self.advance();
                Ok((Operator::Between, self.between_bounds(Self::term)?))
            }
            Keyword::Like => {
                self.advance();
                Ok((Operator::Like, Operand::Term(self.term()?)))
            }
            Keyword::Is => {
                self.advance();
                self.expect_keyword(Keyword::Not)?;
                self.expect_keyword(Keyword::Null)?;
                Ok((Operator::IsNotNull, Operand::Term(Term::Null)))
            }
            Keyword::In => {
                self.advance();
                Ok((Operator::In, self.in_values(Self::term)?))
            }
            Keyword::Contains => {
                let operator = self.contains(Operator::Contains, Operator::ContainsKey);
                Ok((operator, Operand::Term(self.term()?)))
            }
            Keyword::Not if self.keyword_at(1, Keyword::In) => {
                self.position += 2;
                Ok((Operator::NotIn, self.in_values(Self::term)?))
            }
            Keyword::Not if self.keyword_at(1, Keyword::Contains) => {
                self.advance();
                let operator = self.contains(Operator::NotContains, Operator::NotContainsKey);
                Ok((operator, Operand::Term(self.term()?)))
            }
            Keyword::Not => Err(self.no_viable_at(1)),
            _ => Err(self.no_viable()),
        }
    }

    /// `CONTAINS [KEY]`, with CONTAINS next
    fn contains(&mut self, element: Operator, key: Operator) -> Operator {
        self.advance();
        if self.take_keyword(Keyword::Key) {
            key
        } else {
            element
        }
    }

    fn between_bounds(&mut self, bound: impl Fn(&mut Self) -> Parse<Term>) -> Parse<Operand> {
        let low = bound(self)?;
        self.expect_keyword(Keyword::And)?;
        Ok(Operand::Terms(vec![low, bound(self)?]))
    }

    /// `(a, b)`, maybe empty, or a bind marker, after IN
    fn in_values(&mut self, value: impl FnMut(&mut Self) -> Parse<Term>) -> Parse<Operand> {
        if self.at(TokenKind::OpenParenthesis) {
            let values =
                self.enclosed_or_empty(TokenKind::OpenParenthesis, TokenKind::CloseParenthesis, value)?;
            return Ok(Operand::Terms(values));
        }
        Ok(Operand::InMarker(self.marker()?))
    }

    fn token_relation(&mut self, subject: RelationSubject) -> Parse<Relation> {
        if self.take_keyword(Keyword::Between) {
            let operand = self.between_bounds(Self::term)?;
            return Ok(Relation {
                subject,
                operator: Operator::Between,
                operand,
            });
        }
        let operator = self.comparison()?;
        Ok(Relation {
            subject,
            operator,
            operand: Operand::Term(self.term()?),
        })
    }

    fn multi_column_relation(&mut self, subject: RelationSubject) -> Parse<Relation> {
        let (operator, operand) = if self.take_keyword(Keyword::Between) {
            (Operator::Between, self.between_bounds(Self::tuple_or_marker)?)
        } else if self.take_keyword(Keyword::In) {
            (Operator::In, self.in_values(Self::tuple_or_marker)?)
        } else if self.take_keywords(&[Keyword::Not, Keyword::In]) {
            (Operator::NotIn, self.in_values(Self::tuple_or_marker)?)
        } else {
            (self.comparison()?, Operand::Term(self.tuple_or_marker()?))
        };
        Ok(Relation {
            subject,
            operator,
            operand,
        })
    }

    fn tuple_or_marker(&mut self) -> Parse<Term> {
        if self.at(TokenKind::OpenParenthesis) {
            return self.nested(Self::tuple_term);
        }
        Ok(Term::Marker(self.marker()?))
    }

    /// `[IF EXISTS | IF condition (AND condition)*]`
    pub(super) fn optional_condition(&mut self) -> Parse<Condition> {
        if !self.take_keyword(Keyword::If) {
            return Ok(Condition::None);
        }
        if self.at_keyword(Keyword::Exists) && !self.condition_continues_at(1) {
            self.advance();
            return Ok(Condition::Exists);
        }
        let mut conditions = vec![self.column_condition()?];
        while self.take_keyword(Keyword::And) {
            conditions.push(self.column_condition()?);
        }
        Ok(Condition::Columns(conditions))
    }

    /// What stands there can only follow a column: `IF exists = 1` has a column of that name.
    fn condition_continues_at(&self, ahead: usize) -> bool {
        let kind = self.kind_at(ahead);
        kind.comparison().is_some()
            || matches!(
                kind,
                TokenKind::Dot | TokenKind::OpenBracket | TokenKind::Keyword(Keyword::In | Keyword::Contains)
            )
    }

    fn column_condition(&mut self) -> Parse<ColumnCondition> {
        let column = self.column_name()?;
        let part = self.column_part()?;
        let (operator, operand) = if self.take_keyword(Keyword::In) {
            (Operator::In, self.in_values(Self::term)?)
        } else if part == ColumnPart::Whole && self.at_keyword(Keyword::Contains) {
            (
                self.contains(Operator::Contains, Operator::ContainsKey),
                Operand::Term(self.term()?),
            )
        } else {
            (self.comparison()?, Operand::Term(self.term()?))
        };
        Ok(ColumnCondition {
            column,
            part,
            operator,
            operand,
        })
    }

    /// Nothing, `[key]` or `.field`
    pub(super) fn column_part(&mut self) -> Parse<ColumnPart> {
        if self.take(TokenKind::OpenBracket) {
            let key = self.term()?;
            self.expect(TokenKind::CloseBracket)?;
            return Ok(ColumnPart::Element(key));
        }
        if self.take(TokenKind::Dot) {
            return Ok(ColumnPart::Field(self.name()?));
        }
        Ok(ColumnPart::Whole)
    }
}
