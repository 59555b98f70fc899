package main

import (
	"reflect"
	"strings"
)

// narrowed is a grammar that understands args as a whole grammar does, if it understands them at all: of each level of which they seem to name a command, that
// command alone is left. Looking at all the others takes kong most of a short command's time.
func narrowed(whole reflect.Type, args []string) reflect.Type {
	for i, arg := range args {
		for f := range whole.Fields() {
			if _, command := f.Tag.Lookup("cmd"); command && strings.EqualFold(f.Name, strings.ReplaceAll(arg, "-", "")) {
				return alone(whole, f, args[i+1:])
			}
		}
	}
	return whole
}

// alone is a grammar with one of its commands, itself narrowed to what follows it.
func alone(whole reflect.Type, command reflect.StructField, args []string) reflect.Type {
	var fields []reflect.StructField
	for f := range whole.Fields() {
		if _, is := f.Tag.Lookup("cmd"); is && f.Name != command.Name {
			continue
		} else if is {
			f.Type = narrowed(f.Type, args)
		}
		if f.Anonymous { // which a type that is made cannot have with methods; kong takes a tag for it
			f.Anonymous, f.Tag = false, f.Tag+` embed:""`
		}
		fields = append(fields, f)
	}
	return reflect.StructOf(fields)
}

// commandWords are the words of args that seem to name a command of a grammar, each with a space after it.
func commandWords(grammar reflect.Type, args []string) string {
	for i, arg := range args {
		for f := range grammar.Fields() {
			if _, command := f.Tag.Lookup("cmd"); command && strings.EqualFold(f.Name, strings.ReplaceAll(arg, "-", "")) {
				return arg + " " + commandWords(f.Type, args[i+1:])
			}
		}
	}
	return ""
}
