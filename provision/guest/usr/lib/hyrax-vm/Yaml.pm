package Yaml;
# Reads the part of YAML that NoCloud's files are written in: mappings, sequences, strings with and without
# quotes, text blocks (| and >), flow lists and maps, and so JSON. It refuses the rest (anchors, tags,
# several documents) with the line number, and never misreads it.
use strict;
use warnings;

my $STRING = qr/"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'/;
my $KEY = qr/($STRING|[^\s\[\]{},#&*!|>'"%@`-][^\n#]*?|-[^\s,:\[\]{}][^\n#]*?)[ \t]*:(?=[ \t]|$)/;
my %ESCAPES = (n => "\n", t => "\t", r => "\r", 0 => "\0", e => "\e", '"' => '"', '/' => '/', '\\' => '\\', ' ' => ' ');

my (@lines, $at);    # [indent, text]; an empty line and a comment have the indent -1

# parse TEXT: returns hashes, arrays and strings; dies with `line N: ...`
sub parse {
    my ($text) = @_;
    $text =~ s/\A\xef\xbb\xbf//;
    $at = 0;
    @lines = map { my ($space, $rest) = /\A( *)(.*)\z/s; [$rest eq '' || $rest =~ /\A#/ ? -1 : length $space, $rest, $_] }
        map { s/[ \t\r]+\z//r } split /\n/, $text;
    skip();
    $at++ if line() && line()->[1] eq '---';
    my $value = skip() ? block(line()->[0]) : undef;
    refuse('this is not understood here') if skip();
    return $value;
}

sub refuse { my ($words) = @_; die 'line ' . ($at + 1) . ": $words\n" }
sub line { return $lines[$at] }

# skip: goes to the next line that says something
sub skip { $at++ while $at < @lines && $lines[$at][0] < 0; return $at < @lines }

# block INDENT: reads what begins at this line
sub block {
    my ($indent) = @_;
    refuse('a tab cannot indent') if line()->[1] =~ /\A\t/;
    return sequence($indent) if line()->[1] =~ /\A-(?: |\z)/;
    return mapping($indent) if line()->[1] =~ /\A$KEY/;
    return inline($lines[$at++][1]);
}

sub sequence {
    my ($indent) = @_;
    my @values;
    while (skip() && line()->[0] == $indent && line()->[1] =~ /\A-( +|\z)(.*)/s) {
        my ($space, $rest) = ($1, $2);
        if ($rest eq '' || $rest =~ /\A#/) {
            $at++;
            push @values, skip() && line()->[0] > $indent ? block(line()->[0]) : undef;
        } else {
            # What is after the dash is a block of its own, further to the right.
            my $inner = $indent + 1 + length $space;
            $lines[$at] = [$inner, $rest, ' ' x $inner . $rest];
            push @values, $rest =~ /\A[|>]/ ? do { $at++; text($rest, $indent) } : block($inner);
        }
    }
    return \@values;
}

sub mapping {
    my ($indent) = @_;
    my %values;
    while (skip() && line()->[0] == $indent && line()->[1] =~ /\A$KEY[ \t]*(.*)\z/s) {
        my ($key, $rest) = (unquoted($1), $2);
        refuse("'$key' is there twice") if exists $values{$key};
        $at++;
        if ($rest =~ /\A[|>]/) {
            $values{$key} = text($rest, $indent);
        } elsif ($rest ne '' && $rest !~ /\A#/) {
            $values{$key} = inline($rest);
        } else {
            my $next = skip() ? line() : [-1, ''];
            my $inside = $next->[0] > $indent || $next->[0] == $indent && $next->[1] =~ /\A-(?: |\z)/;
            $values{$key} = $inside ? block($next->[0]) : undef;
        }
    }
    refuse('this is not understood here') if $at < @lines && line()->[0] > $indent;
    return \%values;
}

# text HEADER INDENT: a block of text, as it is (|) or with its lines joined (>)
sub text {
    my ($header, $indent) = @_;
    my @raw;
    push @raw, $lines[$at++][2] while $at < @lines && ($lines[$at][2] =~ /\A\s*\z/ || ($lines[$at][2] =~ /\A( *)/ && length $1 > $indent));
    my ($margin) = ((grep { /\S/ } @raw)[0] // '') =~ /\A( *)/;
    s/\A$margin// for @raw;
    return join($header =~ /\A>/ ? ' ' : "\n", @raw) =~ s/\s*\z/\n/r;
}

# inline TEXT: a string, or a flow list or map, which may go on in the next lines; TEXT is from the line before
sub inline {
    my ($text) = @_;
    my $end = $at--;    # messages name that line
    my ($value, $rest);
    if ($text =~ /\A[\[{]/) {
        $text .= "\n" . $lines[$end++][2] while $end < @lines && !eval { flow($text); 1 };
        ($value, $rest) = flow($text);
        refuse('there is something after the end') if $rest !~ /\A\s*(?:#|\z)/;
    } elsif ($text =~ /\A($STRING)[ \t]*(?:#.*)?\z/) {
        $value = unquoted($1);
    } else {
        refuse('anchors, tags and other signs are not supported') if $text =~ /\A[&*!%@`"']/;
        $value = $text =~ s/[ \t]+#.*\z//sr;
    }
    $at = $end;
    return $value;
}

# flow TEXT: returns its first value, and what is after it
sub flow {
    my ($text) = @_;
    $text =~ s/\A\s+//;
    if ($text =~ s/\A\[//) {
        my (@values, $value);
        until ($text =~ s/\A\s*\]//) {
            ($value, $text) = flow($text);
            push @values, $value;
            $text =~ s/\A\s*,// or $text =~ /\A\s*\]/ or refuse('a list [ ... ] does not end');
        }
        return (\@values, $text);
    }
    if ($text =~ s/\A\{//) {
        my (%values, $value);
        until ($text =~ s/\A\s*\}//) {
            $text =~ s/\A\s*($STRING|[^\s:,\[\]{}"'][^:,\[\]{}]*?)\s*:\s*// or refuse('a map { ... } does not end');
            my $key = unquoted($1);
            ($values{$key}, $text) = flow($text);
            $text =~ s/\A\s*,// or $text =~ /\A\s*\}/ or refuse('a map { ... } does not end');
        }
        return (\%values, $text);
    }
    return (unquoted($1), $text) if $text =~ s/\A($STRING)//;
    $text =~ s/\A([^\s,\[\]{}"'&*!#|>%@`](?:[^,\[\]{}\n#]|(?<![ \t])#)*)// or refuse('this is not understood here');
    return ($1 =~ s/\s+\z//r, $text);
}

sub unquoted {
    my ($text) = @_;
    if ($text =~ /\A"(.*)"\z/s) { return $1 =~ s/\\(u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|.)/escape($1, $2 \/\/ $3)/gesr }
    return $text =~ /\A'(.*)'\z/s ? $1 =~ s/''/'/gr : $text;
}

sub escape {
    my ($code, $hex) = @_;
    return $ESCAPES{$code} // refuse("'\\$code' is not an escape") unless defined $hex;
    utf8::encode(my $character = chr hex $hex);
    return $character;
}

1;
