package Toml;
# Reads the part of TOML 1.0 that a settings file needs: tables, arrays of tables, strings on one line,
# whole numbers, true and false, arrays. It refuses the rest of TOML with the line number, and never
# misreads it.
use strict;
use warnings;

my $SPACE = qr/[ \t]/;
my $REST = qr/$SPACE*(?:#[^\n]*)?(?=\r?\n|\z)/;    # the rest of a line: at most a comment
my $GAP = qr/(?:[ \t\r\n]|#[^\n]*)*/;
my $KEY = qr/([A-Za-z0-9_-]+)/;
my %ESCAPES = (b => "\b", t => "\t", n => "\n", f => "\f", r => "\r", '"' => '"', '\\' => '\\');

# parse TEXT: returns ([tables], [problems]). A table is {name, many, line, entries}; an entry is
# {key, value, line}, its value a string (true and false too) or a reference to an array of them.
# A problem is [line, words]. Wrong lines are left out, the rest is read.
# No match with /g may be in list context here: it would match repeatedly.
sub parse {
    my ($text) = @_;
    my (@tables, @problems, %seen, $table);
    return ([], [[1, 'the file is not UTF-8']]) unless utf8::decode(my $copy = $text);
    $text =~ s/\A\xef\xbb\xbf//;    # the byte-order mark of editors on Windows
    pos $text = 0;
    while ($text =~ /\G$GAP/gc, pos $text < length $text) {
        my $line = line_of($text);
        my $good = eval {
            if ($text =~ /\G\[/gc) {
                $table = undef;    # keys after a bad header belong to no table
                my $many = $text =~ /\G\[/gc;
                $text =~ /\G$SPACE*$KEY$SPACE*\]/gc
                    or die "a table's header must be [name] or [[name]], with letters, digits, - and _\n";
                my $name = $1;
                die "[[$name]] must end in ]]\n" if $many && $text !~ /\G\]/gc;
                die "[$name] is there twice\n" if $seen{$name}++ && !$many;
                end_of_line(\$text);
                $table = { name => $name, many => $many ? 1 : 0, line => $line, entries => [], keys => {} };
                push @tables, $table;
            } else {
                $text =~ /\G$KEY$SPACE*=$SPACE*/gc or die "this is neither [table] nor key = value\n";
                my $key = $1;
                my $value = value(\$text);
                end_of_line(\$text);
                if ($table) {
                    die "$key is there twice in [$table->{name}]\n" if $table->{keys}{$key}++;
                    push @{ $table->{entries} }, { key => $key, value => $value, line => $line };
                } elsif (!@tables && !@problems) {
                    die "$key is before the first [table]\n";
                }
            }
            1;
        };
        next if $good;
        push @problems, [$line, $@ =~ s/\n\z//r];
        $text =~ /\G[^\n]*/gc;
    }
    return (\@tables, \@problems);
}

sub line_of { my ($text) = @_; return 1 + (substr($text, 0, pos($_[0]) // 0) =~ tr/\n//) }

sub end_of_line {
    my ($text) = @_;
    $$text =~ /\G$REST/gc or die "there is something after the end; a comment begins with #\n";
}

# value REFERENCE-TO-TEXT: reads the value at pos
sub value {
    my ($text) = @_;
    die "strings of several lines are not supported\n" if $$text =~ /\G(?:"""|''')/;
    if ($$text =~ /\G"/gc) {
        $$text =~ /\G((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*)"/gc or die "a string must end with \" on its line\n";
        my $raw = $1;
        $raw =~ s/\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)/escape($1)/ge;
        return $raw;
    }
    if ($$text =~ /\G'/gc) {
        $$text =~ /\G([^'\x00-\x08\x0a-\x1f\x7f]*)'/gc or die "a string must end with ' on its line\n";
        return $1;
    }
    if ($$text =~ /\G\[/gc) {
        my @values;
        until ($$text =~ /\G$GAP\]/gc) {
            die "an array's values must be separated by commas\n" if @values && $$text !~ /\G$GAP,/gc;
            last if $$text =~ /\G$GAP\]/gc;    # the last value may have a comma after it
            $$text =~ /\G$GAP/gc;
            push @values, value($text);
            die "arrays in arrays are not supported\n" if ref $values[-1];
        }
        return \@values;
    }
    return $1 if $$text =~ /\G(true|false|[+-]?(?:0|[1-9][0-9]*))(?=[ \t\r\n,\]#]|\z)/gc;
    die "a value must be a \"string\", a whole number, true, false or an array [ ... ]\n";
}

sub escape {
    my ($code) = @_;
    if ($code =~ /\A[uU](.+)/) {
        my $number = hex $1;
        die "'\\$code' is not a character\n" if $number > 0x10ffff || ($number >= 0xd800 && $number < 0xe000);
        my $character = chr $number;
        utf8::encode($character);
        return $character;
    }
    return $ESCAPES{$code} // die "'\\$code' is not an escape; write a backslash as \\\\, or use '...'\n";
}

# quoted TEXT: the text as a string; control characters are escaped
sub quoted {
    my ($text) = @_;
    $text =~ s/(["\\])/\\$1/g;
    $text =~ s/([\x00-\x1f\x7f])/sprintf '\\u%04x', ord $1/ge;
    return qq("$text");
}

# table HEADER KEY VALUE ...: returns its text; empty values are left out, and so is an empty table
sub table {
    my ($header, @pairs) = @_;
    my $body = '';
    while (my ($key, $value) = splice @pairs, 0, 2) {
        if (ref $value) {
            $body .= "$key = [" . join(',', map { "\n    " . quoted($_) } @$value) . ",\n]\n" if @$value;
        } elsif (defined $value && $value ne '') {
            $body .= "$key = " . quoted($value) . "\n";
        }
    }
    return $body && "\n$header\n$body";
}

1;
