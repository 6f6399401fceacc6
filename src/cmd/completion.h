/* What a command line may go on with, for the scripts that `trapeze completion` prints. */
#ifndef CMD_COMPLETION_H
#define CMD_COMPLETION_H

/*
 * argv: "--", then the words after the program's name; the last one is being typed, and may be empty. `--name` `=` `value`
 * is one word, as bash splits it. Prints what may stand in the last one's place, whatever it begins with: lines of a word,
 * a tab and what it means; or ":file" or ":folder". Returns STATUS_OK: who types is not disturbed by errors.
 */
int completion_words(char **argv);

#endif
